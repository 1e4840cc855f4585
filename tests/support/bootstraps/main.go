// A runtime for `provided.al2023` on Go's own HTTP client. It does what its event says: {"do": "..."}.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

var prefix = "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"

func post(path string, body []byte) {
	answer, err := http.Post(prefix+path, "application/json", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

// Pieces, and perhaps an error in the trailers.
func stream(id string, fails bool) {
	reader, writer := io.Pipe()
	request, _ := http.NewRequest("POST", prefix+id+"/response", reader)
	request.Header.Set("Lambda-Runtime-Function-Response-Mode", "streaming")
	request.Trailer = http.Header{"Lambda-Runtime-Function-Error-Type": nil, "Lambda-Runtime-Function-Error-Body": nil}
	go func() {
		for _, piece := range []string{"one ", "two"} {
			writer.Write([]byte(piece))
		}
		if fails {
			body := []byte(`{"errorType":"Late","errorMessage":"in the middle"}`)
			request.Trailer.Set("Lambda-Runtime-Function-Error-Type", "Late")
			request.Trailer.Set("Lambda-Runtime-Function-Error-Body", base64.StdEncoding.EncodeToString(body))
		}
		writer.Close()
	}()
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

func main() {
	for {
		answer, err := http.Get(prefix + "next")
		if err != nil {
			panic(err)
		}
		raw, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		id := answer.Header.Get("Lambda-Runtime-Aws-Request-Id")
		var event struct{ Do string }
		json.Unmarshal(raw, &event)
		switch event.Do {
		case "error":
			post(id+"/error", []byte(`{"errorType":"MyError","errorMessage":"no","stackTrace":[]}`))
		case "stream", "late":
			stream(id, event.Do == "late")
		case "panic":
			panic("at once")
		case "sleep":
			time.Sleep(time.Minute)
		default:
			post(id+"/response", []byte(fmt.Sprintf(`{"hello": %s}`, raw)))
		}
	}
}
