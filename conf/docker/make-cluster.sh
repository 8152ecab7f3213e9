#!/bin/sh
# Makes a Redis Cluster of the nodes in $NODES (their names, six or more), unless it stands already,
# and waits until each of them finds it whole. May be run again at any time.
set -eu

ask() { redis-cli -h "$@" 2>&1; }

is_whole() { # by all nodes' word: up, no slot without a node, and all of them known
    for node in $NODES; do
        info=$(ask "$node" cluster info | tr -d '\r')
        case $info in *cluster_state:ok*) ;; *) return 1 ;; esac
        case $info in *cluster_slots_ok:16384*) ;; *) return 1 ;; esac
        case $info in *"cluster_known_nodes:$count"*) ;; *) return 1 ;; esac
    done
}

set -- $NODES
count=$#
known=$(ask "$1" cluster info | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
if [ "$known" = 1 ]; then
    # Nodes introduce each other by address, never by name.
    nodes=$(for node in $NODES; do echo "$(getent hosts "$node" | cut -d ' ' -f 1):6379"; done)
    # shellcheck disable=SC2086  # one word each
    redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
fi

tries=0
until is_whole; do
    tries=$((tries + 1))
    if [ $tries -gt 60 ]; then
        echo "The cluster is not whole. What its first node knows:" >&2
        ask "$1" cluster nodes >&2
        exit 1
    fi
    sleep 1
done
echo "The cluster of $count nodes is whole."
