// An origin in Node: ADDRESS PORT FOLDER. What README.md here asks of all three.
const http = require("http");
const fs = require("fs");
const [address, port, folder] = process.argv.slice(2);
const record = fs.openSync(folder + "/record", "a");
const small = fs.readFileSync(folder + "/small");
const big = fs.readFileSync(folder + "/big");
const told = (what) => fs.existsSync(`${folder}/${what}`);

const origin = http.createServer((request, response) => {
  // Before the body: what is cut short was seen all the same.
  if (request.method === "POST") fs.writeSync(record, `${request.method} ${request.url}\n`);
  const say = (status, body) => {
    response.writeHead(status, { "origin-kind": "node", "content-length": body.length });
    response.end(body);
  };
  request.on("error", () => {});
  request.resume();
  request.on("end", () => {
    if (told("maintaining")) return say(200, "maintaining\n");
    if (request.url === "/health") return say(200, "healthy\n");
    const answer = () => {
      if (told("error")) return say(500, "error\n");
      say(200, request.url.startsWith("/big") ? big : small);
    };
    if (told("slow")) setTimeout(answer, 2000);
    else answer();
  });
});
origin.listen(Number(port), address, 1024);
