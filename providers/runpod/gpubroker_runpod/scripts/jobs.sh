# A container that runs its jobs by itself. For each job four words: what it is for, "work" or
# "home", seconds it may run or "-", and what `job_text` reads. All of it is printed to the log.
nonce=@NONCE@
own=$HOME/.gpubroker
say() {
  printf '\nGPUBROKER-LOG %s %s\n' "$nonce" "$*"
}
ended() {
  line="GPUBROKER-LOG $nonce end $*"
  printf '\n%s\n' "$line"
  printf '%s\n' "$line" >>"$own/endings"
  endings="$endings$line
"
  case $* in
  'job '* | *' exited 0') ;;
  *) failed=1 ;;
  esac
}
# Ends what is left of a job whose time was up, whatever group it is in. Twice: what is just being
# started has no environment yet.
sweep() {
  for _ in 1 2; do
    [ "$leader" != - ] || kill -KILL "$target"
    for one in $(grep -ls "GPUBROKER_RUN=$known" /proc/[0-9]*/environ); do
      one=${one#/proc/}
      kill -KILL "${one%/environ}"
    done
  done
}
job() {
  purpose=$1 place=$2 limit=$3 known=$nonce-$1
  [ -z "$failed" ] || { ended "$purpose" not-run && return; }
  folder=$own/jobs/$purpose
  mkdir -p "$folder/work" && cd "$folder" || { ended "$purpose" not-started its folder cannot be made && return; }
  run=$folder/work
  [ "$place" = work ] || run=$HOME
  say start "$purpose"
  timer=
  if [ "$limit" != - ]; then
    sleep 0.01 || limit=$((${limit%.*} + 1))
    (
      trap 'kill $sleeper; exit' TERM
      sleep "$limit" >/dev/null &
      sleeper=$!
      wait "$sleeper"
      stop timed-out
    ) &
    timer=$!
  fi
  if [ "$leader" = - ]; then
    printf '%s' "$4" | setsid sh -c "$job_text" sh "$run" "$mask" - "$purpose" "$known" 2>&1
  else
    printf '%s' "$4" | sh -c "$job_text" sh "$run" "$mask" '' "$purpose" "$known" 2>&1
  fi
  code=$?
  target=
  IFS= read -r target <pid
  rm -f pid
  [ -z "$timer" ] || kill "$timer"
  if [ -e refused ]; then
    IFS= read -r reason <refused
    ended "$purpose" not-started "$reason"
  elif [ -e why ]; then
    sweep
    ended "$purpose" timed-out
  else
    ended "$purpose" exited "$code"
  fi
}
(
  # Whatever the shell itself says, of jobs that were killed for instance, is no job's output.
  exec 2>/dev/null
  if ! mkdir "$own/begun" && [ -d "$own/begun" ]; then
    # The container was started again: nothing is ever run twice.
    printf '\n'
    cat "$own/endings"
    say again
    exit 0
  fi
  mask=$(umask)
  leader=
  ! command -v setsid >/dev/null || leader=-
  say begin
  while [ $# -ge 4 ]; do
    job "$@"
    shift 4
  done
  for pause in @REPEATS@; do
    sleep $pause
    printf '\n%s' "$endings"
  done
) || say broken
sleep @GRACE@
while :; do
  (cd ~/.gpubroker && destroy) >/dev/null 2>&1 </dev/null
  sleep @PAUSE@
done
