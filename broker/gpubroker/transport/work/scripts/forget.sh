# Deletes the jobs that have ended, whose outputs are with their callers. $1: the one to keep. $2: the
# others that are under way, with blanks between them.
forget() {
  for one in "$HOME"/.gpubroker/jobs/*/; do
    [ -e "$one/end" ] || continue
    name=${one%/}
    case " $1 $2 " in
    *" ${name##*/} "*) ;;
    *) rm -rf "$one" ;;
    esac
  done
}
