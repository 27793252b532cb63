# The SHA-256 of files, each with its name; nothing where there is no tool for it, or no file.
# Standard input: their names.
if command -v sha256sum >/dev/null; then
  tool=sha256sum
elif command -v openssl >/dev/null; then
  tool="openssl dgst -sha256 -r"
else
  exit 0
fi
tick &
ticking=$!
set --
while IFS= read -r line; do
  decode "$line"
  set -- "$@" "$text"
  [ $# -lt 400 ] || { $tool "$@" 2>/dev/null || : && set --; }
done
[ $# = 0 ] || $tool "$@" 2>/dev/null
kill $ticking
exit 0
