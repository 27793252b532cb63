# The path that a line stands for, as $text.
decode() {
  case $1 in
  *\\*) text=$(printf '%b.' "$1") && text=./${text%.} ;;
  *) text=./$1 ;;
  esac
}
