import procession
import torch
import torch.multiprocessing  # registers how tensors are pickled


def child(tensors, words, orders):
    tensor = tensors.get()
    tensor[0] = 42
    words.put("written")
    orders.get()
    words.put(tensor[1].item())
    words.put(tensor)
    orders.get()


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = procession.get_context(method)
        tensors, words, orders = context.Queue(), context.Queue(), context.SimpleQueue()
        process = context.Process(target=child, args=(tensors, words, orders))
        process.start()
        tensor = torch.zeros(3)
        tensors.put(tensor)
        print(words.get(), tensor[0].item())
        tensor[1] = 7
        orders.put("look")
        print(words.get(), words.get().data_ptr() == tensor.data_ptr())
        orders.put("end")
        process.join()
        print(process.exitcode)
