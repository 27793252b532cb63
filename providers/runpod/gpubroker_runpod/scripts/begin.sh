# What every container does first. PID 1 never returns: the host would start the container again,
# the work with it, and bill on. So signals only interrupt it, and what may fail runs in subshells.
trap : HUP INT QUIT TERM USR1 USR2 ALRM
export HOME="${HOME:-/root}"
mkdir -p ~/.gpubroker
chmod 700 ~/.gpubroker
# The pod's own key: for what ends the pod, and for nothing that runs in it. Nor is the mark.
k=$RUNPOD_API_KEY
unset RUNPOD_API_KEY GPUBROKER_MARK
@ASK@
destroy() {
  ask DELETE "@API@/v2/pods/$RUNPOD_POD_ID" && return
  ask POST "@API@/graphql" '{"query":"mutation{podTerminate(input:{podId:\"'"$RUNPOD_POD_ID"'\"})}"}'
  [ -z "$last" ] || kill "$last"
  RUNPOD_API_KEY=$k runpodctl remove pod "$RUNPOD_POD_ID" &
  last=$!
}
(
  @WATCH@
) >/dev/null 2>&1 </dev/null &
