# shellcheck shell=sh
# `systemctl daemon-reload` takes the GPUs away from running containers where systemd manages their
# cgroups (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48 and 251). So nothing here does
# it unless it is certain that no running container has a GPU. No word of ds01d counts for that.

# Whether systemd goes by another unit file than the one that is there, or was.
needs_reload() {
    [ "$(systemctl show --property NeedDaemonReload --value ds01d.service)" = yes ]
}

# reload_systemd COMMAND: reload it, or say why not, and which command is left to do.
reload_systemd() {
    against=$(gpus_in_use)
    if [ -z "$against" ]; then
        systemctl --system daemon-reload || :
        return
    fi
    cat >&2 <<MESSAGE
ds01d: systemd was NOT reloaded: $against.
ds01d: A reload can take the GPUs away from running containers. systemd still goes by the unit file
ds01d: that was there before. When no container with a GPU runs any more, do:
ds01d:     $1
MESSAGE
}

# Why a running container may have a GPU; nothing if none has.
gpus_in_use() {
    # Whatever the engine: NVIDIA's toolkit mounts the devices one by one.
    found=$(grep -lsm 1 ' /dev/nvidia' /proc/[0-9]*/mountinfo | head -n 1)
    if [ -n "$found" ]; then
        found=${found%/mountinfo}
        echo "process ${found#/proc/} ($(cat "$found/comm")) has a GPU, in a container"
    elif grep -qsx dockerd /proc/[0-9]*/comm; then
        gpus_in_docker
    elif grep -qsaz '^/.*/moby/' /proc/[0-9]*/cmdline; then
        echo "Docker does not run, but containers of it do, and nobody can say which have GPUs"
    fi
}

gpus_in_docker() {
    if ! command -v docker >/dev/null; then
        echo "Docker runs, and there is no command docker to ask it which containers have GPUs"
        return
    fi
    for _ in 1 2 3; do # a container may go while it is looked at
        ids=$(timeout 10 docker --host unix:///run/docker.sock ps --quiet --no-trunc) || break
        if found=$(docker_gpus "$ids"); then
            # shellcheck disable=SC2086 # one line of them
            [ -z "$found" ] || echo "running containers have GPUs:" $found
            return
        fi
    done 2>/dev/null
    echo "Docker does not say which containers have GPUs"
}

# docker_gpus IDS: the names of those that asked for a GPU, in one of the four ways to ask.
docker_gpus() {
    [ -n "$1" ] || return 0
    form='{{.Name}}|{{.HostConfig.Runtime}}|{{len .HostConfig.DeviceRequests}}|'
    form=$form'{{range .HostConfig.Devices}}{{.PathOnHost}} {{end}}'
    # shellcheck disable=SC2086 # one word an id
    told=$(timeout 30 docker --host unix:///run/docker.sock inspect --format "$form" $1) || return
    echo "$told" | awk -F '|' '$2 ~ /nvidia/ || $3 > 0 || $4 ~ /\/dev\/nvidia/ { print substr($1, 2) }'
}

start_ds01d() {
    # systemctl warns of a unit file that was not reloaded, and advises just what must not be done.
    deb-systemd-invoke start ds01d.socket ds01d.service 2>&1 >/dev/null | sed '/daemon-reload/d' >&2
}
