# Says now and then that something is still done; what sleeps holds no stream of ours.
tick() {
  while sleep 5 >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; do echo; done
}
