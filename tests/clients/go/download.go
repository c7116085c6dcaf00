// Downloads an attachment with Go. See ../README.md for what goes in and out.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	url := fmt.Sprintf("%s/api/v2/clients/%s/attachments/%s/content",
		os.Getenv("BASE_URL"), os.Getenv("CLIENT_ID"), os.Getenv("ATTACHMENT_ID"))
	req, err := http.NewRequest("GET", url, nil)
	check(err)
	req.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	out := os.Getenv("OUT")
	if os.Getenv("MODE") == "rest" {
		info, err := os.Stat(out)
		check(err)
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", info.Size()))
		req.Header.Set("If-Range", os.Getenv("ETAG"))
	}
	resp, err := http.DefaultClient.Do(req)
	check(err)
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		// 206 is the rest; 200 is all of it, since the content has changed meanwhile.
		flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if resp.StatusCode == http.StatusPartialContent {
			flags = os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(out, flags, 0o644)
		check(err)
		// It fails if fewer bytes come than the header says.
		_, err = io.Copy(file, resp.Body)
		check(err)
		check(file.Close())
	}
	fmt.Printf("{\"status\":%d}\n", resp.StatusCode)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
