# shellcheck shell=sh
# `systemctl daemon-reload` takes the GPUs away from running containers where systemd manages their
# cgroups (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48 and 251). So these scripts
# reload systemd only if it is certain that no running container has a GPU. The state of ds01d does
# not count as proof.

# Whether systemd uses another unit file than the one on disk, or one that was removed.
needs_reload() {
    systemctl show --property NeedDaemonReload --value ds01d.service ds01d-notify.service \
        ds01d-notify-network.service ds01d-web.service ds01d-hosts.service | grep -qx yes
}

# reload_systemd COMMAND: reload systemd, or print why not and the command to run later.
reload_systemd() {
    reason=$(gpus_in_use)
    if [ -z "$reason" ]; then
        systemctl --system daemon-reload || :
        return
    fi
    cat >&2 <<MESSAGE
ds01d: systemd was NOT reloaded: $reason.
ds01d: A reload can take the GPUs away from running containers. systemd still uses the previous unit
ds01d: file. When no running container has a GPU, run:
ds01d:     $1
MESSAGE
}

# Print why a running container may have a GPU, or nothing if none has one.
gpus_in_use() {
    # With any engine NVIDIA's toolkit mounts the devices one by one.
    process=$(grep -lsm 1 ' /dev/nvidia' /proc/[0-9]*/mountinfo | head -n 1)
    if [ -n "$process" ]; then
        process=${process%/mountinfo}
        echo "process ${process#/proc/} ($(cat "$process/comm")) in a container has a GPU"
    elif grep -qsx dockerd /proc/[0-9]*/comm; then
        gpus_in_docker
    elif grep -qsaz '^/.*/moby/' /proc/[0-9]*/cmdline; then
        echo "Docker is not running but its containers are, and which of them have GPUs is unknown"
    fi
}

gpus_in_docker() {
    if ! command -v docker >/dev/null; then
        echo "Docker is running, but without the docker command its containers cannot be checked"
        return
    fi
    for _ in 1 2 3; do # a container may be removed between the two calls
        ids=$(timeout 10 docker --host unix:///run/docker.sock ps --quiet --no-trunc) || break
        if names=$(docker_gpus "$ids"); then
            # shellcheck disable=SC2086 # joins the lines
            [ -z "$names" ] || echo "running containers have GPUs:" $names
            return
        fi
    done 2>/dev/null
    echo "cannot get the containers with GPUs from Docker"
}

# docker_gpus IDS: print the names of the containers that request a GPU, in any of the four ways.
docker_gpus() {
    [ -n "$1" ] || return 0
    form='{{.Name}}|{{.HostConfig.Runtime}}|{{len .HostConfig.DeviceRequests}}|'
    form=$form'{{range .HostConfig.Devices}}{{.PathOnHost}} {{end}}'
    # shellcheck disable=SC2086 # one word for each ID
    requests=$(timeout 30 docker --host unix:///run/docker.sock inspect --format "$form" $1) || return
    echo "$requests" | awk -F '|' '$2 ~ /nvidia/ || $3 > 0 || $4 ~ /\/dev\/nvidia/ { print substr($1, 2) }'
}

start_ds01d() {
    # Drop systemctl's warning about a changed unit file: it recommends the reload that must not happen.
    deb-systemd-invoke start ds01d.socket ds01d.service ds01d-notify.service \
        ds01d-notify-network.service 2>&1 >/dev/null | sed '/daemon-reload/d' >&2
    # The web page, and what asks other hosts for it, are off unless an administrator has enabled them.
    for unit in ds01d-hosts.service ds01d-web.service; do
        if systemctl --quiet is-enabled "$unit" 2>/dev/null; then
            deb-systemd-invoke start "$unit" 2>&1 >/dev/null | sed '/daemon-reload/d' >&2
        fi
    done
}
