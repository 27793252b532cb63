# Makes a job's folder. Says how far the job is, whether there is a tar, and KiB of free space.
# $1: id. $2: other jobs under way.
mask=$(umask)
umask 077
forget "$1" "$2"
folder=$HOME/.gpubroker/jobs/$1
mkdir -p "$folder" && cd "$folder" || exit 42
umask "$mask"
state=new tar=yes
[ ! -e started ] || state=started
command -v tar >/dev/null || tar=no
[ -d new ] || [ $state = started ] || mkdir new || exit 42
set -- $(LC_ALL=C df -Pk . 2>/dev/null | { read -r _ && read -r line && echo "$line"; })
echo "$state $tar ${4:--}"
