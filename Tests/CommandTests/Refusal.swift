import Testing

/// Runs a program that has to refuse: with its exit code, one sentence that names what is wrong, nothing else printed, almost
/// no work done and nothing left in `folder`.
func expectRefusal(
  _ program: Program, _ arguments: [String], exitCode: Int32, naming name: String, leavingEmpty folder: String,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let outcome = try run(program, arguments)
  let lines = outcome.errors.split(separator: "\n", omittingEmptySubsequences: false)
  let command = Comment(rawValue: "\(program.rawValue) \(arguments.joined(separator: " "))\n\(outcome.errors)")
  #expect(outcome.exitCode == exitCode, command, sourceLocation: sourceLocation)
  #expect(lines.count == 2 && lines.last == "", command, sourceLocation: sourceLocation)
  #expect(lines[0].hasPrefix(program.rawValue + ": "), command, sourceLocation: sourceLocation)
  #expect(lines[0].hasSuffix("."), command, sourceLocation: sourceLocation)
  #expect(lines[0].contains(name), command, sourceLocation: sourceLocation)
  #expect(outcome.output.isEmpty, command, sourceLocation: sourceLocation)
  #expect(outcome.processorSeconds < (Program.isEmulated ? 20 : 1), command, sourceLocation: sourceLocation)
  #expect(try names(folder) == [], command, sourceLocation: sourceLocation)
}

/// A file that is not what its name says, as users have them.
struct ForeignFile: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let content: String
  init(_ name: String, _ content: String) { (testDescription, self.content) = (name, content) }

  static let all = [
    ForeignFile("HTML page", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"),
    ForeignFile("Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    ForeignFile("text file", "These are only words.\n"), ForeignFile("empty file", ""),
    ForeignFile("binary file", "\u{1}\u{0}\u{7f}\u{1b}\u{0}\u{2}\u{3}"),
  ]
}
