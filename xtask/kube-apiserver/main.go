// Command kube-apiserver is the API server of Kubernetes with an etcd of its own in one process, for tests.
//
// Its first argument is a folder of its own, where etcd has its data; the others are those of the API server. It ends
// when its standard input does, so that it never outlives the test that started it, and removes the folder then.
package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kube-apiserver FOLDER [FLAGS OF THE API SERVER]")
		os.Exit(2)
	}
	folder := os.Args[1]
	etcd, err := startEtcd(folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = os.RemoveAll(folder)
		os.Exit(0)
	}()
	flags := append([]string{"--etcd-servers=" + etcd}, os.Args[2:]...)
	command := app.NewAPIServerCommand()
	command.SetArgs(flags)
	os.Exit(cli.Run(command))
}

// startEtcd returns where the API server finds it.
func startEtcd(folder string) (string, error) {
	// Port 0 is any free one.
	anywhere := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = filepath.Join(folder, "etcd")
	config.ListenClientUrls, config.AdvertiseClientUrls = anywhere, anywhere
	config.ListenPeerUrls, config.AdvertisePeerUrls = anywhere, anywhere
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// Nothing outlives a test.
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	<-etcd.Server.ReadyNotify()
	return "http://" + etcd.Clients[0].Addr().String(), nil
}
