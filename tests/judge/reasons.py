"""Why troupe's answer is not tritonserver's 2.51, by the name of the request in judge.py. docs/triton.md has the same as a table."""

SENTENCE = "the same refusal and status, in a better sentence"
PYTHON = "the mock is a Python model; ours is the backend \"vllm\", with the engine's instance group"
CLIENT = "the client's mistake is 400 (INVALID_ARGUMENT), not 500 (INTERNAL): nothing is wrong with the server"
NAMES = "the missing input is named, instead of an exception of Python's"
VERSIONS = "the versions that are served are named"

REASONS = {
    "server": "the version of the protocol's extensions that we follow is 2.73's",
    "unknown ready": "yes or no is the status alone",
    "metadata": PYTHON, "metadata of a version": PYTHON, "grpc metadata": PYTHON, "identity metadata": PYTHON,
    "config": PYTHON + "; what was neither written nor means anything here (optimization) is left out",
    "metadata of no version": VERSIONS, "generate of no version": VERSIONS,
    "index": "the reason is always there, empty where there is none, as gRPC has it",
    "no such path": "OpenAI's API is on the same port: its error says where both begin", "no such path of a model": SENTENCE,
    "wrong verb": SENTENCE, "post to a GET": SENTENCE,
    "memory of nobody": CLIENT + "; the system's reason is added", "grpc memory of nobody": CLIENT + "; the system's reason is added",
    "cuda memory status": "there is no CUDA shared memory here, and each of its calls says so",
    "generate with an id": "`id` is the request's, and not also an unknown sampling parameter",
    "generate with a list": SENTENCE, "generate with an unknown parameter": "the parameter is named, instead of an exception of Python's",
    "generate of a stream": "an error is no 200",
    "generate of only stream": NAMES, "stream without text": NAMES + "; a stream that ends before its first event is a plain error",
    "grpc stream without text": NAMES,
    "generate with a number as text": CLIENT, "generate with a bool as text": CLIENT, "generate with broken JSON": CLIENT,
    "generate with a list as body": CLIENT, "generate with nothing": CLIENT, "identity of too few": CLIENT,
    "identity without the field": CLIENT, "identity with broken JSON": CLIENT,
    "generate with two texts": SENTENCE, "generate with a field twice": "no request was made of it yet, so there is no request id",
    "generate with bad sampling_parameters": "the backend's contract makes it INTERNAL; 2.51 reads the code after freeing it and says 400 always",
    "stream with the prompt": "the contract's INTERNAL, as above; an error before the first event is a plain JSON body",
    "infer": "one response needs no stream: a decoupled model is served where Triton refuses", "grpc infer": "as infer",
    "identity for no output": SENTENCE, "identity of an unknown type": SENTENCE, "identity of another input": SENTENCE,
    "identity of 300": "a number that does not fit its type is refused and not cut",
    "grpc stream": "tokens that come while a response is being sent go into one, as in vLLM itself; often there is no such difference",
    "grpc stream with all outputs": "num_input_tokens has the shape that the configuration declares, [1]; the backend sends a scalar",
    "grpc stream of an unknown input": SENTENCE,
    "grpc stream of nobody as a status": "`triton_grpc_error` is honoured for refusals too",
}
