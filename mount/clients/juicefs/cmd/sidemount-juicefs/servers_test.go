package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidemount/sidemount/mount"
)

// Every metadata engine runs for one spec, on loopback, and ends with it. Its password is in no argument of a client.
const enginePassword = "very-secret-password"

// redisVolume keeps metadata in a Redis of its own and objects in files.
func redisVolume(options ...string) mount.Volume {
	GinkgoHelper()
	return volume(volumeDir(), "redis://:"+enginePassword+"@"+startRedis()+"/1", options...)
}

// postgresVolume keeps metadata in a PostgreSQL of its own and objects in files.
func postgresVolume(options ...string) mount.Volume {
	GinkgoHelper()
	return volume(volumeDir(), "postgres://jfs:"+enginePassword+"@"+startPostgres()+"/postgres?sslmode=disable", options...)
}

// mysqlVolume keeps metadata in a MariaDB of its own and objects in files.
func mysqlVolume(options ...string) mount.Volume {
	GinkgoHelper()
	return volume(volumeDir(), "mysql://jfs:"+enginePassword+"@("+startMariaDB()+")/jfs", options...)
}

// startRedis returns the address of a Redis.
func startRedis() string {
	GinkgoHelper()
	address, _ := startRedisServer()
	return address
}

// startRedisServer is startRedis for those who want to disturb it.
func startRedisServer() (string, *os.Process) {
	GinkgoHelper()
	address, port := freeAddress()
	return address, startServer("eady to accept connections", find("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--requirepass", enginePassword, "--dir", volumeDir())
}

// startPostgres returns the address of a PostgreSQL, whose user is jfs.
func startPostgres() string {
	GinkgoHelper()
	dir := volumeDir()
	data, password := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	Expect(os.WriteFile(password, []byte(enginePassword), 0o644)).To(Succeed())
	runOnce(find("initdb"), "-D", data, "-U", "jfs", "--auth=scram-sha-256", "--pwfile="+password, "--no-sync", "--no-instructions")
	address, port := freeAddress()
	startServer("database system is ready to accept connections", find("postgres"), "-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	return address
}

// oldMariaDB matches what those say of themselves that JuiceFS does not work with: they do not know the variable transaction_isolation.
var oldMariaDB = regexp.MustCompile(`Ver (10|11\.0)\.`)

// startMariaDB returns the address of a MariaDB with a database and a user jfs.
func startMariaDB() string {
	GinkgoHelper()
	version, err := exec.Command(find("mariadbd"), "--version").Output()
	Expect(err).NotTo(HaveOccurred())
	if oldMariaDB.Match(version) {
		Skip("this is too old for JuiceFS: " + string(version))
	}
	dir := volumeDir()
	data, setup := filepath.Join(dir, "data"), filepath.Join(dir, "setup.sql")
	Expect(os.WriteFile(setup, []byte("CREATE DATABASE jfs;\nCREATE USER jfs IDENTIFIED BY '"+enginePassword+"';\nGRANT ALL ON jfs.* TO jfs;\n"), 0o644)).To(Succeed())
	runOnce(find("mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	address, port := freeAddress()
	startServer("ready for connections", find("mariadbd"), "--no-defaults", "--datadir="+data, "--port="+port, "--bind-address=127.0.0.1",
		"--socket="+filepath.Join(dir, "socket"), "--pid-file="+filepath.Join(dir, "pid"), "--init-file="+setup, "--innodb-flush-log-at-trx-commit=0")
	return address
}

// find returns the path of a server's program. Debian keeps PostgreSQL's out of PATH.
func find(program string) string {
	GinkgoHelper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(versions) > 0 {
		return versions[len(versions)-1]
	}
	Skip("there is no " + program + ": " + err.Error())
	return ""
}

// freeAddress is an address that nobody listens at.
func freeAddress() (address, port string) {
	GinkgoHelper()
	l := listen()
	address = l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	Expect(err).NotTo(HaveOccurred())
	Expect(l.Close()).To(Succeed())
	return address, port
}

// asNobody makes a command one that ends with this process. Databases refuse to run as root.
func asNobody(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runOnce runs a command to its end.
func runOnce(program string, args ...string) {
	GinkgoHelper()
	out, err := asNobody(program, args...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// startServer runs a server for one spec and waits until it says that it is ready.
func startServer(ready string, program string, args ...string) *os.Process {
	GinkgoHelper()
	out, in, err := os.Pipe()
	Expect(err).NotTo(HaveOccurred())
	cmd := asNobody(program, args...)
	cmd.Stdout, cmd.Stderr = in, in
	Expect(cmd.Start()).To(Succeed())
	Expect(in.Close()).To(Succeed())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	DeferCleanup(func() {
		// PostgreSQL and MariaDB end their children and threads when they are asked to.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	said := make(chan struct{})
	go func() {
		defer out.Close()
		once := sync.OnceFunc(func() { close(said) })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), ready) {
				once()
			}
		}
	}()
	Eventually(said, patience).Should(BeClosed())
	return cmd.Process
}
