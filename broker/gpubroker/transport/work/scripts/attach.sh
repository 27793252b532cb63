# Starts a job, unless it was started before, and follows it to its end. Standard input: what
# `job.sh` reads, where $2 is "new". $1: id. $2: "new" or "started". $3, $4: bytes of standard
# output and standard error that are known. $5: bytes of each stream to send. $6: "work" or
# "home". $7: seconds it may run, or "-". $8: "files" if its files are there. $9: "tar" if needed.
# ${10}: other jobs under way.
mask=$(umask)
umask 077
# Waits for the launcher. A busy machine takes its time; only one whose launcher was killed at once
# is waited for in vain; not one that was cancelled before it had any.
settle() {
  tries=0
  while [ ! -e launcher ] && [ ! -e why ] && [ $tries -lt 1000 ]; do
    nap 0.02
    tries=$((tries + 1))
  done
}
jobs=$HOME/.gpubroker/jobs
if [ "$2" = new ]; then
  spec=$(cat)
  case $spec in
  *"
end") ;;
  *) exit 41 ;;
  esac
  [ "$9" != tar ] || command -v tar >/dev/null || { echo T && exit 0; }
  [ "$8" != files ] || [ -d "$jobs/$1/new" ] || [ -d "$jobs/$1/work" ] || { echo G && exit 0; }
  forget "$1" "${10}"
  mkdir -p "$jobs/$1" && cd "$jobs/$1" || exit 42
  if command -v setsid >/dev/null; then
    begin='setsid sh -c "$1" sh "$$" "$2" "$3" "$4" "$5" "$6" -'
  else
    begin='sh -c "$1" sh "$$" "$2" "$3" "$4" "$5" "$6" alone'
  fi
  printf '%s\n' "$spec" |
    sh -c "$begin; :" sh "$launch_text" "$1" "$6" "$7" "$5" "$mask" \
      >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
  spec=
  settle
  [ -e started ] || exit 42
  echo S
else
  cd "$jobs/$1" 2>/dev/null || { echo G && exit 0; }
  settle
fi
IFS=' ' read -r launcher born <launcher || { echo D && exit 0; }

alive() {
  [ -r /proc/self/stat ] || { kill -0 "$launcher" 2>/dev/null && return; }
  read -r line 2>/dev/null </proc/"$launcher"/stat || return 1
  set -- $line
  [ "$3" != Z ] && [ "${22}" = "$born" ]
}
# Sends bytes $3 to $4 of a stream, in pieces. $1: its letter. $2: its descriptor.
send() {
  at=$3
  while [ "$at" -lt "$4" ]; do
    piece=$(($4 - at))
    [ $piece -le 262144 ] || piece=262144
    printf '%s %d\n' "$1" $piece
    dd bs=$piece count=1 <&"$2" 2>/dev/null || exit 43
    at=$((at + piece))
  done
}
limit=$5 o=$3 e=$4
exec 3<stdout 4<stderr
dd bs=1 skip="$o" count=0 <&3 2>/dev/null
dd bs=1 skip="$e" count=0 <&4 2>/dev/null
idle=0 dead=0
while :; do
  if [ -e end ]; then
    read -r state code sizeo sizee lost <end
  else
    state=
    set -- $(LC_ALL=C ls -ln stderr stdout 2>/dev/null)
    [ $# = 18 ] || { echo G && exit 0; }
    sizee=$5 sizeo=${14}
  fi
  [ "$sizeo" -le "$limit" ] || sizeo=$limit
  [ "$sizee" -le "$limit" ] || sizee=$limit
  if [ "$o" -lt "$sizeo" ] || [ "$e" -lt "$sizee" ]; then
    send O 3 "$o" "$sizeo"
    send E 4 "$e" "$sizee"
    o=$sizeo e=$sizee idle=0
    [ -n "$state" ] || nap 0.05
  elif [ -n "$state" ]; then
    ending=$(cat end refused 2>/dev/null)
    [ -n "$ending" ] || { echo G && exit 0; }
    printf 'X\n%s\n' "$ending"
    exit 0
  else
    alive || dead=$((dead + 1))
    [ $dead -lt 4 ] || { echo D && exit 0; }
    idle=$((idle + 1))
    [ $((idle % 10)) != 0 ] || echo A
    if [ $idle -lt 20 ]; then nap 0.03; elif [ $idle -lt 100 ]; then nap 0.1; else nap 0.2; fi
  fi
done
