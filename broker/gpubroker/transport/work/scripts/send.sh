# Sends one file: its size, or "-" if it cannot be read, and its bytes. Standard input: its name.
# $3: bytes to leave out at its beginning.
IFS= read -r line || exit 41
decode "$line"
[ -f "$text" ] && [ -r "$text" ] || { echo - && exit 0; }
from=$3
set -- $(LC_ALL=C ls -lnL "$text")
echo "$5"
exec 3<"$text"
dd bs=1 skip="$from" count=0 <&3 2>/dev/null
cat <&3
