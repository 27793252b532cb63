# Deletes the jobs that have ended, whose outputs are with their callers. $1: the one to keep.
forget() {
  for one in "$HOME"/.gpubroker/jobs/*/; do
    [ ! -e "$one/end" ] || [ "$one" = "$HOME/.gpubroker/jobs/$1/" ] || rm -rf "$one"
  done
}
