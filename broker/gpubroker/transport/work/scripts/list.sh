# Lists files below the paths that standard input names: "F" or, for a link to one that is not
# elsewhere, "L", then the name and NUL.
root=$(pwd -P)
one() {
  if [ -L "$1" ]; then
    [ -f "$1" ] || return 0
    case $(readlink -f "$1" 2>/dev/null) in
    "$root"/*) printf 'L%s\0' "$1" ;;
    esac
  elif [ -d "$1" ]; then
    all "$1/"
  elif [ -f "$1" ]; then
    printf 'F%s\0' "$1"
  fi
}
all() {
  for path in "$1"* "$1".[!.]* "$1"..?*; do
    one "$path"
  done
}
while IFS= read -r line; do
  decode "$line"
  text=${text%/}
  if [ -L "$text" ] || [ -e "$text" ]; then one "$text"; fi
done
printf 'E\0'
