# A container that is reached over SSH.
complain() {
  echo "gpubroker: $*"
}
install_sshd() {
  if command -v apt-get; then
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server
  elif command -v apk; then
    apk add --no-cache openssh
  elif command -v dnf; then
    dnf install -y openssh-server
  elif command -v microdnf; then
    microdnf install -y openssh-server
  elif command -v yum; then
    yum install -y openssh-server
  else
    echo "there is no package manager that is known here"
    false
  fi
}
find_sshd() {
  sshd=$(command -v sshd || echo @SBIN@/sshd)
  [ -x "$sshd" ] && command -v ssh-keygen >/dev/null
}
(
  mkdir -p ~/.ssh
  chmod 700 ~/.ssh
  if [ -n "$PUBLIC_KEY" ]; then
    grep -qsF "$PUBLIC_KEY" ~/.ssh/authorized_keys || printf '\n%s\n' "$PUBLIC_KEY" >>~/.ssh/authorized_keys
    chmod 600 ~/.ssh/authorized_keys
  fi
  # Sessions inherit nothing from here; an image's PATH and libraries, and the cards, are in this.
  (
    umask 77
    env | while IFS= read -r line; do
      case $line in
      HOME=* | PWD=* | OLDPWD=* | SHLVL=* | USER=* | LOGNAME=* | SHELL=* | TERM=* | _=*) ;;
      PUBLIC_KEY=* | JUPYTER_PASSWORD=* | GPUBROKER_*) ;;
      [A-Za-z_]*=*) printf '%s\n' "$line" ;;
      esac
    done >~/.ssh/environment
  )
  if ! find_sshd; then
    complain "the image has no sshd; installing it"
    install_sshd >~/.gpubroker/install.log 2>&1 || tail -n 20 ~/.gpubroker/install.log
  fi
  until find_sshd; do
    complain "there is no sshd here, and none could be installed"
    sleep 60
  done
  mkdir -p /run/sshd 2>/dev/null
  # Whoever has the image has the keys that it brings along.
  rm -f "${GPUBROKER_SSH_DIR:-/etc/ssh}"/ssh_host_*
  ssh-keygen -A >/dev/null
  @ANNOUNCEMENT@
  until "$sshd" -o PermitUserEnvironment=yes -o PermitRootLogin=prohibit-password \
    -o PubkeyAuthentication=yes -o PasswordAuthentication=no -o StrictModes=no \
    -o AllowTcpForwarding=yes -o MaxSessions=100 -o MaxStartups=100 \
    -o "AuthorizedKeysFile=$HOME/.ssh/authorized_keys"; do
    complain "sshd does not start"
    sleep 10
  done
) 2>&1
while :; do sleep 3600; done
