// What a server says of image files, from Node: node detect.js HOST:PORT IMAGE...
const grpc = require("@grpc/grpc-js"), loader = require("@grpc/proto-loader"), fs = require("fs"), path = require("path");
const definition = loader.loadSync("protos/detection.proto", { includeDirs: [path.join(__dirname, "../..")], enums: String });
const { DetectorService } = grpc.loadPackageDefinition(definition).advsentry.v1;
const [target, ...files] = process.argv.slice(2);
const client = new DetectorService(target, grpc.credentials.createInsecure());
for (const file of files)
  client.Detect({ image: { encoded: { data: fs.readFileSync(file) } } }, (error, answer) =>
    console.log(file, error ? `${error.code} ${error.details}` : `${answer.detection.top.label} ${answer.detection.verdict}`));
