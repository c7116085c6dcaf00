<?php
// Downloads an attachment with PHP. See ../README.md for what goes in and out.
require 'GuzzleHttp/autoload.php';

$url = getenv('BASE_URL') . '/api/v2/clients/' . getenv('CLIENT_ID') . '/attachments/' . getenv('ATTACHMENT_ID') . '/content';
$out = getenv('OUT');
$headers = array('Authorization' => 'Bearer ' . getenv('TOKEN'));
if (getenv('MODE') === 'rest') {
    $headers['Range'] = 'bytes=' . filesize($out) . '-';
    $headers['If-Range'] = getenv('ETAG');
}
$client = new \GuzzleHttp\Client();
$response = $client->request('GET', $url, array('headers' => $headers, 'stream' => true, 'http_errors' => false));
$status = $response->getStatusCode();
if ($status < 300) {
    // 206 is the rest; 200 is all of it, since the content has changed meanwhile.
    $file = fopen($out, $status === 206 ? 'ab' : 'wb');
    $body = $response->getBody();
    $received = 0;
    while (!$body->eof()) {
        $received += fwrite($file, $body->read(65536));
    }
    fclose($file);
    // PHP takes a connection that is cut for the end.
    if ($received !== (int) $response->getHeaderLine('Content-Length')) {
        fwrite(STDERR, "the connection was cut\n");
        exit(1);
    }
}
echo json_encode(array('status' => $status)), "\n";
