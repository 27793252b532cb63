# Takes a large file from where it stopped before. Standard input: its name; then, once we have
# said how many bytes are here, the others. $1: id. $2: bytes in all. $3: "on", or "anew".
writing "$1"
IFS= read -r line || exit 41
decode "$line"
[ -f "$text" ] || exit 44
set -- "$1" "$2" "$3" $(LC_ALL=C ls -ln "$text")
here=$8
[ "$3" = on ] && [ "$here" -le "$2" ] || { : >"$text" && here=0; }
echo "$here"
exec cat >>"$text"
