# A WEBrick server with Digest on /auth/ and /auth-int/, which echoes what is posted.
require "webrick"

port, userfile, realm, user, password = ARGV
log = WEBrick::Log.new($stderr, WEBrick::Log::WARN)
users = WEBrick::HTTPAuth::Htdigest.new(userfile)
users.set_passwd(realm, user, password)
users.flush

server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: port.to_i, Logger: log, AccessLog: [])
%w[auth auth-int].each do |qop|
  auth = WEBrick::HTTPAuth::DigestAuth.new(
    Realm: realm, UserDB: users, Algorithm: "MD5", Qop: [qop], UseOpaque: true,
    UseAuthenticationInfoHeader: true, Logger: log
  )
  server.mount_proc("/#{qop}/") do |req, res|
    auth.authenticate(req, res)
    res.body = req.request_method == "POST" ? req.body : "this is #{qop}\n"
  end
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
server.start
