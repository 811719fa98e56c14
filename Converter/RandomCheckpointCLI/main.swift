import Foundation
import RandomCheckpoint

let usage = """
  usage: audiotoken-random-checkpoint LAYOUT.json FOLDER [--bpe merges.txt] [--naming hub|new]

  Writes a checkpoint set with random weights, in the layout of the published ones: FOLDER/sd, FOLDER/beats.pt,
  FOLDER/embedder.bin and FOLDER/lora.bin. Layouts are in Tests/Fixtures/layouts.

  """

func fail(_ message: String, code: Int32) -> Never {
  FileHandle.standardError.write(Data(message.utf8))
  exit(code)
}

var positional: [String] = []
var merges = RandomCheckpoint.repositoryMerges
var spelling = Spelling.hub
var remaining = CommandLine.arguments.dropFirst()
while let argument = remaining.popFirst() {
  switch argument {
  case "-h", "--help":
    print(usage, terminator: "")
    exit(0)
  case "--bpe":
    guard let path = remaining.popFirst() else { fail(usage, code: 64) }
    merges = path
  case "--naming":
    guard let value = remaining.popFirst().flatMap(Spelling.init) else { fail(usage, code: 64) }
    spelling = value
  case let option where option.hasPrefix("-"): fail(usage, code: 64)
  default: positional.append(argument)
  }
}
guard positional.count == 2 else { fail(usage, code: 64) }
do {
  try RandomCheckpoint(layout: positional[0]).write(to: positional[1], merges: merges, spelling: spelling)
} catch {
  fail("audiotoken-random-checkpoint: \(error)\n", code: 1)
}
