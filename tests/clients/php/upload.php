<?php
// The documented sample for PHP, completed. See ../README.md for what goes in and out.
require 'GuzzleHttp/autoload.php';

$url = getenv('BASE_URL') . '/api/v2/clients/' . getenv('CLIENT_ID') . '/attachments/' . getenv('ATTACHMENT_ID');
$headers = array(
    'Accept' => 'application/json',
    'Authorization' => 'Bearer ' . getenv('TOKEN'),
);
$client = new \GuzzleHttp\Client();

$send = function (array $options) use ($client, $url) {
    try {
        $response = $client->request('POST', $url, $options);
    }
    catch (\GuzzleHttp\Exception\BadResponseException $e) {
        $response = $e->getResponse();
    }
    $body = json_decode($response->getBody()->getContents(), false, 512, JSON_THROW_ON_ERROR);
    echo json_encode(array('status' => $response->getStatusCode(), 'body' => $body)), "\n";
};

if (getenv('MODE') === 'documented') {
    // Define array of request body.
    $request_body = array();
    $send(array(
        'headers' => array('Content-Type' => 'multipart/form-data') + $headers,
        'json' => $request_body,
    ));
}
$send(array(
    'headers' => $headers,
    'multipart' => array(array('name' => 'file', 'contents' => fopen(getenv('FILE'), 'rb'))),
));
