// Arguments: CA file, STARTTLS port, wrapper port, user, password.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/smtp"
	"os"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	pem, err := os.ReadFile(os.Args[1])
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	large := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef\r\n"), 100000)
	message := append([]byte("From: App <app@example.com>\r\nTo: one@example.net\r\nSubject: from Go\r\nX-Part: large.bin\r\n\r\n.dot\r\n"), large...)
	for _, wrapper := range []bool{false, true} {
		var client *smtp.Client
		if wrapper {
			conn, err := tls.Dial("tcp", "localhost:"+os.Args[3], config)
			must(err)
			client, err = smtp.NewClient(conn, "localhost")
			must(err)
		} else {
			client, err = smtp.Dial("localhost:" + os.Args[2])
			must(err)
			must(client.StartTLS(config))
		}
		must(client.Auth(smtp.PlainAuth("", os.Args[4], os.Args[5], "localhost")))
		must(client.Mail("app@example.com"))
		for _, to := range []string{"one@example.net", "two@example.net", "hidden@example.net"} {
			must(client.Rcpt(to))
		}
		writer, err := client.Data()
		must(err)
		_, err = writer.Write(message)
		must(err)
		must(writer.Close())
		must(client.Quit())
	}
}
