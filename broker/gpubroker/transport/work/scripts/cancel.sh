# Ends a job, or sees to it that it is never started. $1: id.
umask 077
mkdir -p "$HOME/.gpubroker/jobs/$1" && cd "$HOME/.gpubroker/jobs/$1" || exit 0
mkdir started 2>/dev/null && echo cancelled >why && exit 0
tries=0
while [ ! -e pid ] && [ ! -e end ] && [ $tries -lt 5 ]; do
  nap 0.1
  tries=$((tries + 1))
done
stop cancelled
