// Kubernetes for tests as one program: the name that it is started by says which part it is.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/client-go/util/cert"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	switch part := filepath.Base(os.Args[0]); part {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	case "kubeadm":
		if err := kubeadm.Run(); err != nil {
			fail(err.Error())
		}
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	case "certificate":
		certificate(os.Args[1])
	default:
		fail("no part is called " + part + ": etcd, kube-apiserver, kubectl, certificate and others, by links of these names")
	}
}

// certificate writes tls.crt, a certificate for the loopback followed by its authority's, and its key tls.key into a folder.
func certificate(folder string) {
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	signed, key, err := cert.GenerateSelfSignedCertKey("localhost", loopback, nil)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "tls.key"), key, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "tls.crt"), signed, 0o600)
	}
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}
