// Package chart checks charts/sidemount: its README against its values, what it renders against golden files, and, with SIDEMOUNT_CHART=install, a real installation on a
// cluster of its own (hack/chart-test.sh). It holds no test of the driver itself.
package chart
