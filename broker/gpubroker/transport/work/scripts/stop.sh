# Asks the job of this folder to end, and kills it two seconds later. $1: why.
stop() {
  [ -e end ] || [ -e why ] || echo "$1" >why
  IFS= read -r target 2>/dev/null <pid || return 0
  kill -TERM "$target" 2>/dev/null
  tries=0
  while [ -e pid ] && [ $tries -lt 20 ]; do
    nap 0.1
    tries=$((tries + 1))
  done
  [ ! -e pid ] || kill -KILL "$target" 2>/dev/null
}
