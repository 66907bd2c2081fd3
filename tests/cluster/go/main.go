// The control plane of Kubernetes for tests, and kubectl, as one program: its first argument says which part it is.
package main

import (
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

	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	if len(os.Args) < 2 {
		fail("which part? etcd, apiserver, controller-manager, kubectl or certificate")
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		etcdmain.Main(os.Args)
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	case "certificate":
		certificate(os.Args[1])
	default:
		fail("no part is called " + part)
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
