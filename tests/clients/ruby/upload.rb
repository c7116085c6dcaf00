# The documented sample for Ruby, completed. See ../README.md for what goes in and out.
require 'rest-client'
require 'json'

url = ENV.fetch('BASE_URL') + "/api/v2/clients/#{ENV.fetch('CLIENT_ID')}/attachments/#{ENV.fetch('ATTACHMENT_ID')}"
headers = {
  'Accept' => 'application/json',
  'Authorization' => "Bearer #{ENV.fetch('TOKEN')}"
}
documented = { 'Content-Type' => 'multipart/form-data' }.merge(headers)

def answer
  result = begin
    yield
  rescue RestClient::ExceptionWithResponse => e
    e.response or raise
  end
  puts JSON.generate(status: result.code, body: JSON.parse(result))
end

case ENV.fetch('MODE')
when 'literal'
  # To the letter: rest-client takes both keywords for the form, and sends none of the headers.
  answer { RestClient.post url, params: {}, headers: documented }
  exit
when 'documented'
  answer { RestClient.post url, { params: {} }, documented }
end
answer { RestClient.post url, { file: File.new(ENV.fetch('FILE'), 'rb') }, headers }
