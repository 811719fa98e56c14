import Glibc

/// Why a file cannot be written. `description` is the sentence for the user.
package enum OutputFileError: Error, Equatable, Sendable {
  /// There is no such folder, or it cannot be written to.
  case folder(file: String, folder: String, reason: String)
  /// A folder for outputs cannot be made, or cannot be written to.
  case outputFolder(String, reason: String)
  /// The target exists and is no ordinary file.
  case notAFile(file: String, found: String)
  /// The disk, or the user's share of it, is full; `neededBytes` is the size of the whole file where it is known.
  case diskFull(file: String, neededBytes: Int?)
  /// The file is larger than the file system allows.
  case tooLarge(file: String)
  case failed(file: String, reason: String)
  /// The target is one of the files that are read to make it.
  case replacesInput(file: String)
  /// The name is empty.
  case noName

  init(file: String, code: Int32, neededBytes: Int? = nil) {
    switch code {
    case ENOSPC, EDQUOT: self = .diskFull(file: file, neededBytes: neededBytes)
    case EFBIG: self = .tooLarge(file: file)
    default: self = .failed(file: file, reason: systemErrorText(code))
    }
  }
}

extension OutputFileError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .folder(let file, let folder, let reason):
      return "\(file) cannot be written into the folder \(folder) (\(reason)); give a folder that you may write to."
    case .outputFolder(let folder, let reason):
      return "The folder \(folder) cannot be made or written to (\(reason)); choose another one."
    case .notAFile(let file, let found):
      return "\(file) cannot be written because it is \(found); give the name of an ordinary file."
    case .diskFull(let file, let neededBytes):
      let need = neededBytes.map { ", which needs \(ByteCount.describe($0))" } ?? ""
      return "The disk is full while writing \(file)\(need); free some space or write to another disk."
    case .tooLarge(let file):
      return "\(file) is larger than its file system or the limit of this process allows; write to another disk."
    case .failed(let file, let reason):
      return "\(file) cannot be written (\(reason)); check the disk and try again."
    case .replacesInput(let file):
      return "\(file) cannot be written because it is one of the files to read; give the output another name."
    case .noName:
      return "The name of the output is empty; give the name of the file to write."
    }
  }
}
