# Becomes the job. Standard input: the number of words, the words, the environment, "end".
# $1: folder to run in. $2: umask. $3: "-" if this is the leader of a group. $4: id. $5: what all
# its processes are known by, whatever group they are in.
# What is set here begins with GPUBROKER_, as no variable of a job does.
GPUBROKER_FOLDER=$PWD
umask 077
echo "$3$$" >pid.new && mv pid.new pid
# Who wants a job to end notes why and then looks for its pid: either they see it, or we see this.
[ ! -e why ] || exit 143
GPUBROKER_PLACE=$1
GPUBROKER_ID=$4
GPUBROKER_MARK=$5
umask "$2"
refuse() {
  printf "%s\n" "$1" >"$GPUBROKER_FOLDER/refused"
  exit 127
}
decode() {
  case $1 in
  *\\*) GPUBROKER_TEXT=$(printf "%b." "$1") && GPUBROKER_TEXT=${GPUBROKER_TEXT%.} ;;
  *) GPUBROKER_TEXT=$1 ;;
  esac
}
set --
IFS= read -r GPUBROKER_WORDS
while [ "$GPUBROKER_WORDS" -gt 0 ]; do
  IFS= read -r GPUBROKER_LINE
  decode "$GPUBROKER_LINE"
  set -- "$@" "$GPUBROKER_TEXT"
  GPUBROKER_WORDS=$((GPUBROKER_WORDS - 1))
done
while IFS= read -r GPUBROKER_LINE && [ "$GPUBROKER_LINE" != end ]; do
  decode "$GPUBROKER_LINE"
  command export "$GPUBROKER_TEXT" 2>/dev/null ||
    refuse "the shell of the machine cannot set the variable ${GPUBROKER_TEXT%%=*}"
done
export GPUBROKER_JOB="$GPUBROKER_ID" GPUBROKER_RUN="$GPUBROKER_MARK"
exec </dev/null
cd "$GPUBROKER_PLACE" || refuse "there is no folder $GPUBROKER_PLACE"
# Looked for here, since a program that cannot be started is told from one that exits with 127.
GPUBROKER_FOUND=$1
case $1 in
*/*) ;;
*)
  GPUBROKER_REST=${PATH-/usr/local/bin:/usr/bin:/bin}:
  while [ -n "$GPUBROKER_REST" ]; do
    GPUBROKER_TEXT=${GPUBROKER_REST%%:*}
    GPUBROKER_TEXT=${GPUBROKER_TEXT:-.}/$1
    GPUBROKER_REST=${GPUBROKER_REST#*:}
    [ -f "$GPUBROKER_TEXT" ] || continue
    [ "$GPUBROKER_FOUND" != "$1" ] || GPUBROKER_FOUND=$GPUBROKER_TEXT
    [ -x "$GPUBROKER_TEXT" ] || continue
    GPUBROKER_FOUND=$GPUBROKER_TEXT
    break
  done
  [ "$GPUBROKER_FOUND" != "$1" ] || refuse "command not found: $1"
  ;;
esac
[ -e "$GPUBROKER_FOUND" ] || refuse "command not found: $1"
[ -x "$GPUBROKER_FOUND" ] && [ ! -d "$GPUBROKER_FOUND" ] || refuse "not executable: $1"
if [ "$(command -p dd "if=$GPUBROKER_FOUND" bs=2 count=1 2>/dev/null)" = "#!" ]; then
  IFS= read -r GPUBROKER_LINE <"$GPUBROKER_FOUND"
  GPUBROKER_LINE=${GPUBROKER_LINE#??}
  GPUBROKER_LINE=${GPUBROKER_LINE#"${GPUBROKER_LINE%%[! 	]*}"}
  [ -e "${GPUBROKER_LINE%%[ 	]*}" ] || refuse "cannot run $1: its interpreter does not exist"
fi
exec "$@"
