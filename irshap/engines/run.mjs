// Runs an ONNX file on arrays with a package of ONNX Runtime for JavaScript, as irshap/engines/javascript.py asks.
//   node run.mjs PACKAGE version
//   node run.mjs PACKAGE run JOB.json
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [name, verb, job] = process.argv.slice(2);
// from the folder that the user stands in, or NODE_PATH
const require = createRequire(pathToFileURL(path.join(process.cwd(), "irshap.js")));
let ort;
try {
  ort = require(name);
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
  process.exit(3);
}

const VIEWS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int64: BigInt64Array, int32: Int32Array,
  int16: Int16Array, int8: Int8Array, uint64: BigUint64Array, uint32: Uint32Array, uint16: Uint16Array,
  uint8: Uint8Array, bool: Uint8Array,
};

function tensor({ type, dims, file }, folder) {
  const bytes = readFileSync(path.join(folder, file));
  // a copy, which starts where its elements may start
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return new ort.Tensor(type, new VIEWS[type](buffer), dims);
}

async function run({ model, feeds, out }) {
  if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 });
  const told = [];
  for (const [i, feed] of feeds.entries()) {
    const results = await session.run(Object.fromEntries(feed.map((e) => [e.name, tensor(e, out)])));
    told.push(session.outputNames.map((output, k) => {
      const { type, dims, data } = results[output];
      const file = `out${i}_${k}.bin`;
      writeFileSync(path.join(out, file), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      return { name: output, type, dims: [...dims].map(Number), file };
    }));
  }
  writeFileSync(path.join(out, "results.json"), JSON.stringify(told));
}

if (verb === "version") {
  console.log(ort.env?.versions?.[name.replace("onnxruntime-", "")] ?? ort.env?.versions?.common ?? "unknown");
} else {
  try {
    await run(JSON.parse(readFileSync(job, "utf-8")));
    // WebAssembly's threads would keep the process
    process.exit(0);
  } catch (error) {
    console.error(error.message ?? String(error));
    process.exit(1);
  }
}
