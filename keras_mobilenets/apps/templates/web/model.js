// The file, run by LiteRT.js: pixels in, numbers out by name.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

import { roundEven } from "./image.js";

const WASM = new URL("runtime/@litertjs/core/wasm/", document.baseURI).href;
let loading = null; // the runtime is loaded once; it runs on the CPU and, by JSPI, in parts on the GPU

/** Whether this browser has a GPU to compute on. */
export const hasGpu = async () => Boolean(await navigator.gpu?.requestAdapter().catch(() => null));

/** The model on "wasm" or "webgpu". */
export async function openModel(about, accelerator) {
  loading ??= loadLiteRt(WASM, { jspi: "Suspending" in WebAssembly && (await hasGpu()) });
  await loading;
  const compiled = await loadAndCompile(new URL("model.tflite", document.baseURI).href, { accelerator });
  const { height, width, channels } = about.input;
  const outputs = inOrder(compiled.getOutputDetails(), about.outputs);
  return {
    async run(pixels) {
      const input = new Tensor(prepare(pixels, about.input), [1, height, width, channels]);
      const given = await compiled.run([input]);
      input.delete();
      const answers = {};
      for (const [index, tensor] of given.entries()) {
        const output = outputs[index];
        answers[output.name] = { values: real(await tensor.data(), output), shape: output.shape };
        tensor.delete();
      }
      return answers;
    },
    close: () => compiled.delete(),
  };
}

/** What is known of each output that the runtime gives, by its name, or by its place where names are other ones. */
function inOrder(details, outputs) {
  const byName = new Map(outputs.map((one) => [one.tensor, one]));
  for (const one of outputs) byName.set(one.name, one);
  const found = details.map(({ name }) => byName.get(name));
  return found.every(Boolean) && new Set(found).size === outputs.length ? found : outputs;
}

/** Pixels as the file takes them: as they are, or normalized as it says and, in an integer file, quantized. */
export function prepare(pixels, { dtype, mean, std, scale, zero_point: zero }) {
  if (!mean) return dtype === "uint8" ? pixels : Float32Array.from(pixels);
  const values = Float32Array.from(pixels, (pixel, index) => {
    return (pixel - Math.fround(mean[index % mean.length])) / Math.fround(std[index % std.length]); // one, or by channel
  });
  if (scale === null) return values;
  return Uint8Array.from(values, (value) => Math.min(Math.max(roundEven(value / scale) + zero, 0), 255));
}

const real = (values, { scale, zero_point: zero }) =>
  scale === null ? values : Float32Array.from(values, (value) => (value - zero) * scale);
