# Downloads an attachment with Ruby. See ../README.md for what goes in and out.
require 'json'
require 'net/http'

uri = URI(ENV.fetch('BASE_URL') + "/api/v2/clients/#{ENV.fetch('CLIENT_ID')}/attachments/#{ENV.fetch('ATTACHMENT_ID')}/content")
out = ENV.fetch('OUT')
request = Net::HTTP::Get.new(uri, 'Authorization' => "Bearer #{ENV.fetch('TOKEN')}", 'Accept-Encoding' => 'identity')
if ENV.fetch('MODE') == 'rest'
  request['Range'] = "bytes=#{File.size(out)}-"
  request['If-Range'] = ENV.fetch('ETAG')
end

Net::HTTP.start(uri.host, uri.port) do |http|
  http.request(request) do |response|
    if response.is_a?(Net::HTTPSuccess)
      # 206 is the rest; 200 is all of it, since the content has changed meanwhile.
      File.open(out, response.code == '206' ? 'ab' : 'wb') do |file|
        response.read_body { |chunk| file.write(chunk) }
      end
    else
      response.read_body
    end
    puts JSON.generate(status: response.code.to_i)
  end
end
