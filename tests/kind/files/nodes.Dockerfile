# What nodes of a cluster and its own pods are made of, on a base of Debian's packages; tests/kind/images.py lays the folder out.
ARG BASE
FROM ${BASE} AS debian
RUN apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    conntrack containernetworking-plugins dbus ethtool ipset iproute2 iptables jq kmod mount nftables procps runc systemd systemd-sysv tini > /dev/null \
 && rm -rf /var/lib/apt/lists/*

FROM debian AS pause
ENTRYPOINT ["tini", "--", "sleep", "infinity"]

FROM debian AS coredns
COPY coredns /
ENTRYPOINT ["/coredns"]

FROM debian AS pods
COPY kube-router local-path-provisioner /usr/local/bin/

FROM debian AS kubernetes
COPY kubernetes /usr/local/bin/
RUN cd /usr/local/bin && for part in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do ln -s kubernetes $part; done

# kind's own base, with what it takes from elsewhere replaced by Debian's. Units of a whole machine stay off, as there.
FROM kubernetes AS base
COPY files/ /
COPY containerd containerd-shim-runc-v2 crictl ctr /usr/local/bin/
RUN chmod 755 /usr/local/bin/* /kind /kind/bin /kind/bin/* \
 && find /etc/systemd /lib/systemd/system/multi-user.target.wants /lib/systemd/system/local-fs.target.wants -path '*.wants/*' -delete \
 && find /lib/systemd/system/sockets.target.wants -name '*udev*' -delete -o -name '*initctl*' -delete \
 && rm -f /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
 && echo ReadKMsg=no >> /etc/systemd/journald.conf \
 && systemctl enable containerd.service kubelet.service undo-mount-hacks.service \
 && systemctl mask systemd-binfmt.service \
 && mkdir -p /etc/kubernetes/manifests /opt/cni/bin \
 && cd /usr/lib/cni && cp bridge host-local loopback portmap ptp /opt/cni/bin/ \
 && ctr oci spec \
  | jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
  > /etc/containerd/cri-base.json
# A machine's control groups may be of the first version, and its root may lack the right to be spared when memory runs out.
RUN sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml \
 && sed -i 's/$/ --fail-cgroupv1=false/' /etc/default/kubelet
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
