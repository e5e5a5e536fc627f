import asyncio

import aiomultiprocess


async def square(number):
    await asyncio.sleep(0.001)
    return number * number


async def main():
    for method in ("fork", "spawn", "forkserver"):
        aiomultiprocess.set_start_method(method)
        async with aiomultiprocess.Pool(2) as pool:
            print(await pool.map(square, range(20)))
        print(await aiomultiprocess.Worker(target=square, args=(7,)))


if __name__ == "__main__":
    asyncio.run(main())
