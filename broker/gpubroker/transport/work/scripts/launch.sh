# Stands for one job: starts it, keeps its output, and notes how it ended. The folder is the job's.
# $1: our parent. $2: id. $3: "work" or "home". $4: seconds it may run, or "-". $5: bytes of each
# stream to keep. $6: umask for the job. $7: "-" if this leads a session of its own, or "alone".
id=$2 where=$3 timeout=$4 limit=$5 mask=$6 leader=$7
# Not a background process of a shell, since those pass on that SIGINT is ignored; so our parent,
# which waits for us, has to go.
[ "$PPID" != "$1" ] || kill -KILL "$PPID"
[ "$leader" = - ] || trap "" HUP
# The token: whoever makes this folder starts the job, and nobody else ever does.
mkdir started 2>/dev/null || exit 0
born=-
if [ -r /proc/self/stat ] && read -r line </proc/$$/stat; then
  set -- $line
  born=${22}
fi
known=$$-$born,
# As long as it will ever be, so that a full disk cannot keep it from being written.
printf "%-200s\n" "" >end.new
>>stdout
>>stderr
echo "$$ $born" >launcher.new && mv launcher.new launcher

size() {
  set -- $(LC_ALL=C ls -ln "$1" 2>/dev/null)
  echo "${5:-0}"
}
# Bytes beyond the limit are dropped, at the latest when there are 64 MiB of them.
trim() {
  [ -e "$1" ] || exit 0
  now=$(size "$1")
  [ "$now" -gt $((limit + 67108864)) ] || return 0
  # Whoever counts what was dropped waits for this, or is waited for.
  >trimming
  if [ ! -e counting ] || [ -e end ]; then
    dd if=/dev/null of="$1" bs=1 seek="$limit" count=0 2>/dev/null
    echo $(($(cat "$1.dropped" 2>/dev/null || echo 0) + now - limit)) >"$1.dropped"
  fi
  rm -f trimming
}
dropped() {
  before=$(cat "$1.dropped" 2>/dev/null || echo 0)
  [ "$2" -le "$limit" ] || before=$((before + $2 - limit))
  echo "$before"
}
copying() {
  kill -0 "$out" 2>/dev/null || kill -0 "$err" 2>/dev/null
}
finish() {
  >counting
  while [ -e trimming ]; do nap 0.01; done
  o=$(size stdout) e=$(size stderr)
  lost=$(($(dropped stdout "$o") + $(dropped stderr "$e")))
  printf "%-200s\n" "$1 $2 $o $e $lost" 1<>end.new
  mv end.new end
  copying || kill "$guard" 2>/dev/null
  exit 0
}

run=$PWD/work
[ -d work ] || mv new work 2>/dev/null || mkdir work
if [ "$where" = home ]; then
  run=$HOME
  cp -R work/. "$run/" || { echo "its files cannot be placed" >refused && finish "not-started" -; }
fi
# Through pipes, as programs expect that: a file would be cut by "echo >/dev/stderr".
mkfifo out err
exec 4<>out 5<out 6<>err 7<err
# Whatever happens somebody reads on, or the job would wait for ever.
(cat >>stdout || cat >/dev/null) <&5 4>&- 5<&- 6>&- 7<&- &
out=$!
(cat >>stderr || cat >/dev/null) <&7 4>&- 5<&- 6>&- 7<&- &
err=$!
exec 5<&- 7<&-
rm -f out err
(
  trap "kill \$sleeper; exit" TERM
  while copying; do
    sleep 1 &
    sleeper=$!
    wait "$sleeper"
    trim stdout
    trim stderr
  done
) 4>&- 6>&- &
guard=$!
timer=
if [ "$timeout" != - ]; then
  sleep 0.01 2>/dev/null || timeout=$((${timeout%.*} + 1))
  (
    trap "kill \$sleeper; exit" TERM
    sleep "$timeout" &
    sleeper=$!
    wait "$sleeper"
    stop timed-out
  ) 4>&- 6>&- &
  timer=$!
fi
if [ "$leader" = - ]; then
  setsid sh -c "$job_text" sh "$run" "$mask" - "$id" "$known" >&4 2>&6 4>&- 6>&-
else
  sh -c "$job_text" sh "$run" "$mask" "" "$id" "$known" >&4 2>&6 4>&- 6>&-
fi
code=$?
IFS= read -r target <pid
rm -f pid
[ -z "$timer" ] || kill "$timer" 2>/dev/null
if [ -e why ]; then
  # Twice: what is just being started has no environment yet.
  for _ in 1 2; do
    [ "$leader" != - ] || kill -KILL "$target" 2>/dev/null
    for one in $(grep -ls "GPUBROKER_RUN=$known" /proc/[0-9]*/environ 2>/dev/null); do
      one=${one#/proc/}
      kill -KILL "${one%/environ}" 2>/dev/null
    done
  done
fi
# The output ends with the pipes, or with 0.2 s of silence: what the job left may hold them for ever.
exec 4>&- 6>&-
tries=0 quiet=0 before=
while copying && [ $tries -lt 20 ] && [ $quiet -lt 2 ]; do
  if [ $tries = 0 ]; then nap 0.01; else nap 0.1; fi
  tries=$((tries + 1))
  now=$(size stdout).$(size stderr)
  if [ "$now" = "$before" ]; then quiet=$((quiet + 1)); else quiet=0; fi
  before=$now
done
[ ! -e refused ] || finish not-started -
[ ! -e why ] || finish "$(cat why)" -
finish exited "$code"
