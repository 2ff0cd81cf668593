// Package ownbody is the transport that ../../../README.md advises for subscriptions by the AWS SDK for Go.
package ownbody

import (
	"bytes"
	"io"
	"net/http"
)

// Client sends a copy of each request's body. The SDK closes the body as soon as it has the answer, which can be before
// the transport has looked for its end: its reader then reports io.EOF as an error of the write (smithy-go 1.28,
// safeWriteToReadCloser), and the transport closes the connection, of which a subscription dies. Only brokers that
// answer at once see it.
func Client() *http.Client {
	return &http.Client{Transport: transport{&http.Transport{}}}
}

type transport struct{ http.RoundTripper }

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body == nil {
		return t.RoundTripper.RoundTrip(request)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	sent := request.Clone(request.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	return t.RoundTripper.RoundTrip(sent)
}
