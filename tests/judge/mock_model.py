"""The contract of Triton's vLLM backend as a model of Triton's Python backend: its inputs, outputs, parameters, errors and
streams, without an engine. Written from the documentation; text is invented, everything around it is not."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

FLAGS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
INPUTS = [("text_input", "TYPE_STRING", [1], False), ("image", "TYPE_STRING", [-1], True), ("stream", "TYPE_BOOL", [1], True),
          ("sampling_parameters", "TYPE_STRING", [1], True), ("exclude_input_in_output", "TYPE_BOOL", [1], True),
          *((f"return_{name}", "TYPE_BOOL", [1], True) for name in FLAGS), ("embedding_request", "TYPE_STRING", [1], True)]
OUTPUTS = [("text_output", "TYPE_STRING", [-1]), ("finish_reason", "TYPE_STRING", [-1]), ("cumulative_logprob", "TYPE_FP32", [-1]),
           ("logprobs", "TYPE_STRING", [-1]), ("num_input_tokens", "TYPE_UINT32", [1]), ("num_output_tokens", "TYPE_UINT32", [-1])]
KNOWN = {"n": int, "temperature": float, "top_p": float, "top_k": int, "min_p": float, "max_tokens": int, "min_tokens": int,
         "seed": int, "ignore_eos": bool, "logprobs": int, "stop": object, "presence_penalty": float, "frequency_penalty": float}


class TritonPythonModel:
    """One instance."""

    @staticmethod
    def auto_complete_config(config):
        written = config.as_dict()
        known = {t["name"] for t in written["input"] + written["output"]}
        for name, kind, dims, optional in INPUTS:
            if name not in known:
                config.add_input({"name": name, "data_type": kind, "dims": dims, "optional": optional})
        for name, kind, dims in OUTPUTS:
            if name not in known:
                config.add_output({"name": name, "data_type": kind, "dims": dims})
        config.set_model_transaction_policy({"decoupled": True})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self.answer(request, sender)
            except Exception as e:  # pylint: disable=broad-except
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"Error generating stream: {e}")),
                            flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    @staticmethod
    def value(request, name, otherwise):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return otherwise if tensor is None else tensor.as_numpy().flatten()[0]

    def answer(self, request, sender):
        prompt = self.value(request, "text_input", None).decode()
        stream = bool(self.value(request, "stream", False))
        exclude = self.value(request, "exclude_input_in_output", None)
        if stream and exclude is not None and not exclude:
            raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
        sampling = self.value(request, "sampling_parameters", None)
        given = json.loads(sampling) if sampling is not None else json.loads(request.parameters() or "{}")
        params = {}
        for key, value in given.items():
            if key not in KNOWN:
                raise AttributeError("'NoneType' object has no attribute 'lora_name'")
            params[key] = value if KNOWN[key] is object else KNOWN[key](value)
        wanted = {f: bool(self.value(request, f"return_{f}", False)) for f in FLAGS}
        words = [" word"] * max(1, params.get("max_tokens", 16))
        before = "" if stream or exclude else prompt
        for i, word in enumerate(words if stream else [before + "".join(words)]):
            last = not stream or i + 1 == len(words)
            sender.send(self.response(word, last, 1 if stream else len(words), wanted, params, prompt),
                        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)

    @staticmethod
    def response(text, last, tokens, wanted, params, prompt):
        entry = {"7": {"logprob": -0.5, "rank": 1, "decoded_token": " word"}}
        logprobs = json.dumps([entry] * tokens) if params.get("logprobs") is not None else "null"
        made = {"finish_reason": np.array([b"length" if last else b"None"], np.object_),
                "cumulative_logprob": np.array([-0.5], np.float32), "logprobs": np.array([logprobs.encode()], np.object_),
                "num_input_tokens": np.asarray(len(prompt.split()), np.uint32), "num_output_tokens": np.array([tokens], np.uint32)}
        outputs = [pb_utils.Tensor("text_output", np.array([text.encode()], np.object_))]
        outputs += [pb_utils.Tensor(name, made[name]) for name in FLAGS if wanted[name]]
        return pb_utils.InferenceResponse(output_tensors=outputs)
