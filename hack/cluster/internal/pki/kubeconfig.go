package pki

import (
	"encoding/json"
	"os"
)

// WriteKubeconfig writes a kubeconfig that holds its certificates, so that it can be copied anywhere. It is JSON, which
// every reader of YAML accepts.
func WriteKubeconfig(path, server, user string, ca string, client Pair) error {
	var pem [3][]byte
	for i, file := range []string{ca, client.Cert, client.Key} {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		pem[i] = b
	}
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": "sidemount",
		"clusters": []object{{"name": "sidemount", "cluster": object{
			"server": server, "certificate-authority-data": pem[0]}}},
		"users": []object{{"name": user, "user": object{
			"client-certificate-data": pem[1], "client-key-data": pem[2]}}},
		"contexts": []object{{"name": "sidemount", "context": object{
			"cluster": "sidemount", "user": user}}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
