# Takes files as one tar stream from standard input. $1: id.
writing "$1"
exec tar -xmf -
