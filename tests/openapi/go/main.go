// Uploads through the client that oapi-codegen generates. ../README.md says what goes in and out.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"attachd.example/openapi/api"
)

func main() {
	if err := upload(); err != nil {
		log.Fatal(err)
	}
}

func upload() error {
	clientID, err := strconv.ParseInt(os.Getenv("CLIENT_ID"), 10, 64)
	if err != nil {
		return err
	}
	attachmentID, err := strconv.ParseInt(os.Getenv("ATTACHMENT_ID"), 10, 64)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(os.Getenv("FILE"))
	if err != nil {
		return err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", filepath.Base(os.Getenv("FILE")))
	if err != nil {
		return err
	}
	if _, err := part.Write(content); err != nil {
		return err
	}
	if err := form.Close(); err != nil {
		return err
	}

	digest := sha256.Sum256(content)
	repr := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
	params := api.UploadAttachmentParams{ReprDigest: &repr}
	if os.Getenv("MODE") == "if-absent" {
		absent := "*"
		params.IfNoneMatch = &absent
	}
	authorize := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
		return nil
	}
	client, err := api.NewClientWithResponses(os.Getenv("BASE_URL"), api.WithRequestEditorFn(authorize))
	if err != nil {
		return err
	}
	response, err := client.UploadAttachmentWithBodyWithResponse(
		context.Background(), clientID, attachmentID, &params, form.FormDataContentType(), &body)
	if err != nil {
		return err
	}
	var typed any
	switch response.StatusCode() {
	case http.StatusCreated:
		typed = response.JSON201
	case http.StatusUnauthorized:
		typed = response.JSON401
	case http.StatusPreconditionFailed:
		typed = response.JSON412
	default:
		return fmt.Errorf("status %d: %s", response.StatusCode(), response.Body)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": response.StatusCode(), "body": typed})
}
