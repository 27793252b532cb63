# $1: seconds, as a fraction where this sleep takes one.
nap() {
  sleep "$1" 2>/dev/null || sleep 1
}
