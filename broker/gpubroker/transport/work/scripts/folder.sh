# Goes to the folder that the outputs of a job are in. $1: id. $2: "work", "new" or "home".
folder=$HOME/.gpubroker/jobs/$1
[ -d "$folder" ] || exit 44
if [ "$2" = home ]; then cd "$HOME"; else cd "$folder/$2" 2>/dev/null; fi || exit 44
