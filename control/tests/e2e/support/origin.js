// An origin for control/tests/e2e/retry.rs: PORT FOLDER. Logs each whole request; files in the folder make it misbehave.
const http = require("http");
const fs = require("fs");
const [port, folder] = process.argv.slice(2);
const log = fs.openSync(folder + "/log", "a");

const origin = http.createServer((request, response) => {
  let bytes = 0;
  request.on("data", (piece) => (bytes += piece.length));
  request.on("end", () => {
    fs.writeSync(log, `${request.method} ${request.url} ${bytes}\n`);
    if (fs.existsSync(folder + "/reset")) return request.socket.resetAndDestroy();
    response.writeHead(fs.existsSync(folder + "/busy") ? 503 : 200, { "content-length": 3 });
    response.end("ok\n");
  });
});
origin.listen(Number(port), "127.0.0.1");
