// The documented sample for Go, completed. See ../README.md for what goes in and out.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
)

var client = &http.Client{}

func main() {
	if os.Getenv("MODE") == "documented" {
		jsonReq := []byte("{}")
		send("multipart/form-data", bytes.NewBuffer(jsonReq))
	}
	content, err := os.ReadFile(os.Getenv("FILE"))
	check(err)
	data := &bytes.Buffer{}
	form := multipart.NewWriter(data)
	part, err := form.CreateFormFile("file", filepath.Base(os.Getenv("FILE")))
	check(err)
	_, err = part.Write(content)
	check(err)
	check(form.Close())
	send(form.FormDataContentType(), data)
}

func send(contentType string, data *bytes.Buffer) {
	headers := map[string][]string{
		"Content-Type":  {contentType},
		"Accept":        {"application/json"},
		"Authorization": {"Bearer " + os.Getenv("TOKEN")},
	}
	url := fmt.Sprintf("%s/api/v2/clients/%s/attachments/%s",
		os.Getenv("BASE_URL"), os.Getenv("CLIENT_ID"), os.Getenv("ATTACHMENT_ID"))
	req, err := http.NewRequest("POST", url, data)
	check(err)
	req.Header = headers
	resp, err := client.Do(req)
	check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(err)
	line, err := json.Marshal(map[string]any{"status": resp.StatusCode, "body": json.RawMessage(body)})
	check(err)
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
